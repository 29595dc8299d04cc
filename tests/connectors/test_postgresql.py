"""PostgreSQL as a sink: how one gets in, who may write, what the tables hold, and what goes wrong in one sentence."""
