constexpr float kFactor = 1.0f;
