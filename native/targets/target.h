// What an object file of a CPU target calls its table: -DTARGET=avx2 makes target_avx2.
#pragma once
#include "arguments.h"

#define NAME_OF(...) #__VA_ARGS__
#define TEXT(...) NAME_OF(__VA_ARGS__)
#define JOIN(a, b) a##b
#define JOINED(a, b) JOIN(a, b)
