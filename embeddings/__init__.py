"""The contract between training and serving: words, arrays and files both sides share."""
