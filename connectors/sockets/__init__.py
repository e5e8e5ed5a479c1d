"""WebSocket connections: kept up, subscribed, replaced, and told to a listener."""
