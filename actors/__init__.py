r"""The actors: which of them owns which state, and the messages between them.

    source -> Dispatcher -> GraphActor --networks--> Coordinator -> OutputActor -> sinks
                       \--> PurchaseShard x S <--window requests, replies--/
                       \--> AuditActor (only with --audit) <--decisions--/

Actors exchange micro-batches as columns. An actor does little itself: it receives a message, calls its state
object and sends the result on.
"""
