#!/bin/sh
# Trains on the embedded digits, samples, evaluates and writes one report that compares the runs. Called by `make demo`.
set -eu
runs=${RUNS:-runs/demo}
for config in ppca_digits vae_digits; do
    python -m experiments.train "$config" --workdir "$runs/$config" --steps 2000
    python -m experiments.sample "$runs/$config" --num 64
    python -m experiments.evaluate "$runs/$config"
done
python -m experiments.report "$runs/ppca_digits" "$runs/vae_digits" --output "$runs/report.html"
cat <<END

The report is $runs/report.html: open it in a browser.
What to try next, after '. .venv/bin/activate':
  python -m experiments.train real_nvp_digits --workdir runs/real_nvp_digits
  python -m experiments.train diffusion_digits --workdir runs/diffusion_digits
  python -m experiments.train --help
END
