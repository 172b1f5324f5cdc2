#!/usr/bin/env bash
# The perturbation record of an atlas: labels of a screen come out as perturb_* columns.
# plan: ranks=1 limit=60
# Norman-style labels (A+ctrl, A+B, B+A), controls, a missing one; the same on 1 and 2 ranks; a column that is
# not there is exit 3 with the nearest name, a label that cannot be read exit 4.
set -u
. tests/job_checks
command -v cytomill-ingest >/dev/null || { echo "no cytomill-ingest"; exit 77; }
/usr/bin/python3 - "$dir" <<'PY' || exit 77
import sys
import anndata, numpy as np, pandas as pd, scipy.sparse as sp
def write(name, labels):
    n = len(labels)
    obs = pd.DataFrame({"condition": pd.Categorical(labels), "guide_id": [f"g{i % 3}" for i in range(n)], "dose": ["1+1" if i % 2 else "2" for i in range(n)]},
                       index=[f"c{i}" for i in range(n)])
    x = sp.csr_matrix(np.arange(1, 3 * n + 1, dtype="f4").reshape(n, 3))
    anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=["KLF1", "SET", "TP53"])).write_h5ad(f"{sys.argv[1]}/{name}.h5ad")
write("good", ["KLF1+ctrl", "KLF1+SET", "SET+KLF1", "ctrl", None, "non-targeting", "TP53"])
write("bad", ["KLF1++SET", "ctrl"])
PY
options="--perturbation condition --set ingest.perturbation_mode=CRISPRa --set ingest.perturbation_dose=dose --set ingest.perturbation_guide=guide_id"
cytomill-ingest "$dir/good.h5ad" $options --out "$dir/one" >"$dir/log" 2>&1 || fail "ingest"
mpirun -n 2 cytomill-ingest "$dir/good.h5ad" $options --out "$dir/two" >"$dir/log" 2>&1 || fail "ingest on 2 ranks"
cmp "$dir/one/mod/rna/shard-00000.h5ad" "$dir/two/mod/rna/shard-00000.h5ad" || fail "other bytes on 2 ranks"
/usr/bin/python3 - "$dir/one/mod/rna/shard-00000.h5ad" <<'PY' || fail "the record is wrong"
import sys
import anndata, pandas as pd
o = anndata.read_h5ad(sys.argv[1]).obs.set_index("source_obs_name")
text = lambda name: {k: None if pd.isna(v) else v for k, v in o[name].items()}
assert text("perturb_genes") == {"c0": "KLF1", "c1": "KLF1+SET", "c2": "KLF1+SET", "c3": "control", "c4": None, "c5": "control", "c6": "TP53"}
assert text("perturb_control") == {"c0": False, "c1": False, "c2": False, "c3": True, "c4": None, "c5": True, "c6": False}
assert set(text("perturb_mode").values()) == {"activation", None} and text("perturb_mode")["c4"] is None
assert text("perturb_dose")["c1"] == 1 and text("perturb_dose")["c2"] == 2 and text("perturb_guide")["c4"] == "g1"
PY
cytomill-ingest "$dir/good.h5ad" --perturbation conditon --out "$dir/no" >/dev/null 2>"$dir/err"
[ $? -eq 3 ] && grep -q "did you mean 'condition'" "$dir/err" || { cat "$dir/err"; fail "a misspelt column"; }
cytomill-ingest "$dir/bad.h5ad" --perturbation condition --out "$dir/no" >/dev/null 2>"$dir/err"
[ $? -eq 4 ] && grep -q "'condition'.*'KLF1++SET'" "$dir/err" || { cat "$dir/err"; fail "an unreadable label"; }
[ ! -e "$dir/no" ] || fail "something lies under the final name"
exit 0
