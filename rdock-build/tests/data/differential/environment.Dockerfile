FROM base
ENV one=1 two="a b" three='$one' four=\$one five=a\ b
ENV old the rest  of $one
ENV one=2 six=$one
ENV seven=$one eight="${six}" nine=${none:-n} ten=${one:+t}
ENV FROM_BASE=changed
RUN env | grep -v -e HOSTNAME -e PWD -e SHLVL -e HOME -e OTEL -e TRACE | sort > /env
