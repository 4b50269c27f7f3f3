"""Routes for whoever runs the server: instances, health, activity, the dashboard, the API's
docs."""
