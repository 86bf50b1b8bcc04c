# The rivals of the benchmarks, each in an environment of its own, with the versions its folder pins.
RIVAL_PINS := $(wildcard benchmarks/peers/*/requirements.txt)
RIVAL_STAMPS := $(patsubst benchmarks/peers/%/requirements.txt,.venv-rivals/%/.installed,$(RIVAL_PINS))

bench-rivals: $(RIVAL_STAMPS) ## install the rivals' environments in .venv-rivals

.venv-rivals/%/.installed: benchmarks/peers/%/requirements.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@
