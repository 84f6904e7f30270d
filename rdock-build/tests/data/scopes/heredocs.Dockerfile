FROM scratch
ENV a=value
COPY <<one <<'two' <<-three /x/
$a \$a "$a" '${a}'
one
$a
two
	tabs $a
	three
