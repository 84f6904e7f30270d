import os

import helper
import six

stages = "the second stage alone" if not os.path.exists("/build") else "both stages"
print("built with", six.__name__, helper.WORD, "from", stages)
