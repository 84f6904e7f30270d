# comment
from base
run echo a \
# inside
   b \

   c > /x
Label a=b \
  c=d
env  tab	after  this
