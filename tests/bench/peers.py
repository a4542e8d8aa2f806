from stand import NotMeasured
def peers(r): raise NotMeasured("x")
