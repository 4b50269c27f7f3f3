"""Routes for whoever keeps the server: instances, health, activity, dashboard, documents."""
