// Routing of a mixture of experts: the checks of its launchers.
#pragma once

#include "bf16.h"
#include "launcher.h"

inline Status check_topk(int32_t m, int32_t experts, int32_t topk) {
    return m <= 0 || experts <= 0 || topk <= 0 || topk > experts ? kInvalidArgument : kOk;
}
