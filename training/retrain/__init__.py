"""The retraining job: trains on a schedule or on request, one run at a time however many jobs are started."""
