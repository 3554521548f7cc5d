#!/bin/sh
# setup_venv.sh VENV_DIR: the Python references the tests compare with, pinned. Finished work is kept:
# a stamp says which version of this file made the environment.
set -eu
venv=$1
here=$(cd "$(dirname "$0")" && pwd)
stamp=$(cat "$here/setup_venv.sh" "$here/slim_torch.py" | cksum)
if [ -f "$venv/stamp" ] && [ "$(cat "$venv/stamp")" = "$stamp" ]; then
    exit 0
fi
echo "setting up the Python references in $venv (about a minute, 1.7 GB)"
rm -rf "$venv"
python3 -m venv "$venv"
pip() { "$venv/bin/pip" install -q --disable-pip-version-check "$@"; }
pip --no-deps torch==2.15.0 nvidia-cuda-runtime==13.2.86 nvidia-cuda-cupti==13.2.86
# Later installs must not pull the NVIDIA wheels in after all.
sed -i -E '/^Requires-Dist: (nvidia|cuda|triton)/d' "$venv"/lib/python3*/site-packages/torch-*.dist-info/METADATA
pip filelock 'typing-extensions>=4.13' 'sympy>=1.13.3' networkx jinja2==3.1.6 fsspec numpy 'setuptools>=77.0.3'
libs=$(echo "$venv"/lib/python3*/site-packages/torch/lib)
"$venv/bin/python" "$here/slim_torch.py" "$libs"
pip transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 openai
"$venv/bin/python" -c 'import torch, transformers, tokenizers, safetensors, openai'
echo "$stamp" > "$venv/stamp"
