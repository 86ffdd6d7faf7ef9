#!/usr/bin/env bash
# Puts Debian's LLVM where the build of the features cuda, rocm and cpu looks for its own, which it would download from outside the registries:
#
#     apt-get install llvm-22 llvm-22-dev && bash benches/llvm_of_debian.sh
#
# LLVM 22 stands in for the 23.1 that CubeCL asks for: programs with the feature cuda link it, and with cpu kernels are
# compiled by it and pass their tests. Does nothing where there
# is an LLVM already.
set -euo pipefail

folder=${XDG_DATA_HOME:-$HOME/.local/share}/tracel/tracel-llvm-23.1.0-4
if [ -e "$folder/.tracel-llvm-installed" ]; then
    echo "there already: $folder"
    exit 0
fi
if ! command -v llvm-config-22 > /dev/null; then
    echo 'no llvm-config-22: apt-get install llvm-22 llvm-22-dev' >&2
    exit 1
fi
prefix=$(llvm-config-22 --prefix)
mkdir -p "$folder/bin"
ln -sfn "$prefix/include" "$folder/include"
ln -sfn "$prefix/lib" "$folder/lib"
# Debian has one library, and it is found while programs run.
cat > "$folder/bin/llvm-config" << 'END'
#!/bin/sh
case " $* " in
*" --libs "* | *" --libnames "*) echo ;;
*" --system-libs "*) echo -lLLVM-22 ;;
*) exec llvm-config-22 "$@" ;;
esac
END
chmod +x "$folder/bin/llvm-config"
touch "$folder/.tracel-llvm-installed"
