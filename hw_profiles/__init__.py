"""What a machine is: profiles of boards, what this machine offers, and whether the two agree."""
