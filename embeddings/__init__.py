"""The contract between training and serving: words, arrays and files both sides share."""

import os

# ONNX Runtime would report its use to its maker, from a thread that starts with the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
