"""What every suite needs: a server, a release, results and pictures of them."""
