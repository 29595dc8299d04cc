r"""Who owns which state, and who talks to whom.

    source -> Dispatcher -> GraphActor --networks--> Coordinator -> OutputActor -> sinks
                       \--> PurchaseShard x S <--window requests, replies--/
                       \--> AuditActor (only with --audit) <--outcomes--/

Actors exchange micro-batches as columns. An actor is thin: it receives a message, calls its state object, sends on.
"""
