// For sources that only launch: the host has no separate part for them.
#pragma once

#include <hip/hip_runtime.h>
