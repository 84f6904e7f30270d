FROM base
ENV path=/usr/lib/x.tar.gz dir="two words" glob='*'
WORKDIR /${path##*/}/${path%%.*}
WORKDIR "$dir"
COPY ${path/*x.tar.gz/a.txt} ./${dir/two*/_}/
COPY dir/${glob}.md /md/
LABEL a=${path#*/} b=${path%.*} c=${none-unset} d="${dir:+set}" e=${path/lib/\/}
ENV ports="90 91"
EXPOSE $ports ${none:-92}
