"""What several tests need: checkpoints, servers, a hub, cases."""
