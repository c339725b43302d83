"""The ground floor: what Everfit remembers. Tasks, schemas, bundles, versions, the inference log and the ledger."""
