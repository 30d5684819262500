"""The engine's second service: what upstream's protocol has no call for, and its client."""
