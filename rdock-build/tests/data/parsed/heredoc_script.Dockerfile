FROM scratch
RUN <<EOF
echo one
  echo two
EOF
RUN <<-'END'
	echo $x
	END
