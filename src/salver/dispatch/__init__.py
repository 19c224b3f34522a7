"""Getting requests to workers and answers back: batching, retry, upstream connections, launching a worker."""
