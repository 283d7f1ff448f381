// The name of a CPU target's table in its object file: -DTARGET=avx2 gives target_avx2.
#pragma once
#include "arguments.h"

#define NAME_OF(...) #__VA_ARGS__
#define TEXT(...) NAME_OF(__VA_ARGS__)
#define JOIN(a, b) a##b
#define JOINED(a, b) JOIN(a, b)
