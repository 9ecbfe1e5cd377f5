"""Speed, memory and derivatives of the four-way operator."""
