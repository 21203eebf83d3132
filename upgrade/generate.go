// SPDX-License-Identifier: Apache-2.0

package upgrade

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade -type super_block -type super_request -type super_event -type super_op -type super_magic -type word_layout super super.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade stamps stamps.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter
//go:generate sh testdata/releases/build.sh
