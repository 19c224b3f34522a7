"""Who may ask what: keys, tokens, scopes, quotas. Gateways may import it; it reads no network, and one file."""
