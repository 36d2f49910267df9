"""Networks and how they are stored and opened as policies. Leans on tandem_datasets; knows neither simulators nor ROS."""
