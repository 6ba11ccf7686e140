"""What the first look's stored cells say beyond its table: noise floors, and whether EMD tells more than the rate."""
