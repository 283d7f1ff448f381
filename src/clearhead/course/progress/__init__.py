"""What a learner has done and knows: attempts, and the schedule, mastery and ratings derived from them."""
