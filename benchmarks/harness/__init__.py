"""The parts that every suite shares: a server, a release, results and pictures of them."""
