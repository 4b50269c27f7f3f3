"""What tests are made with: checkpoints, servers, hubs, cases."""
