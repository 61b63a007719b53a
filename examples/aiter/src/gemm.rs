//! Matrix products, and the softmax that chooses experts.
