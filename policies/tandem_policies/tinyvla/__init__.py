"""TinyVLA: a small vision-language-action policy that learns on a CPU in minutes."""
