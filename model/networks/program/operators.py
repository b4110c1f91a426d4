"""Operators that an imported program may call: functions of tensors and sizes, without files, chance or state."""

from __future__ import annotations

__all__ = ["OPERATORS"]

_ATEN = """
abs acos adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d add addcmul addmm affine_grid_generator alias all
amax amin any arange argmax asin atan atan2 avg_pool1d avg_pool2d baddbmm batch_norm bitwise_and bitwise_not
bitwise_or bmm broadcast_tensors broadcast_to cat ceil celu channel_shuffle chunk clamp clamp_max clamp_min clone
col2im concat conj constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose2d convolution copy cos cosh cross
cumsum detach diagonal div dot dropout einsum elu embedding eq erf exp expand expand_as expm1 eye feature_dropout fill
flatten flip floor floor_divide fmod full full_like gather ge gelu glu grid_sampler grid_sampler_2d group_norm gt
hardsigmoid hardswish hardtanh im2col index index_select instance_norm isfinite isinf isnan item layer_norm le
leaky_relu lerp lift_fresh_copy linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax
logical_and logical_not logical_or logsumexp lt masked_fill matmul max max_pool2d max_pool2d_with_indices maximum mean
meshgrid min minimum mish mm movedim mul narrow native_batch_norm native_group_norm native_layer_norm ne neg new_empty
new_full new_ones new_zeros norm numpy_T ones ones_like permute pixel_shuffle pixel_unshuffle pow prelu prod
reciprocal reflection_pad1d reflection_pad2d relu relu6 remainder repeat repeat_interleave replication_pad1d
replication_pad2d reshape reshape_as rms_norm roll round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter
select select_scatter selu sigmoid sign silu sin sinh slice slice_scatter softmax softplus sort split split_with_sizes
sqrt square squeeze stack std sub sum swapaxes sym_constrain_range sym_constrain_range_for_size sym_is_contiguous
sym_numel sym_size sym_storage_offset sym_stride t tan tanh threshold tile to topk transpose tril triu true_divide
type_as unbind unflatten unfold unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_nearest1d
upsample_nearest2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_nearest_exact2d var var_mean view view_as
where zero zeros zeros_like __and__ __or__ __not__ __xor__ _assert_async _assert_scalar _assert_tensor_metadata
_native_batch_norm_legit _native_batch_norm_legit_no_training _safe_softmax _softmax _log_softmax _to_copy
_unsafe_index _unsafe_view _scaled_dot_product_flash_attention_for_cpu
"""
_SYMBOLS = """
_operator.add _operator.and_ _operator.eq _operator.floordiv _operator.ge _operator.getitem _operator.gt _operator.le
_operator.lt _operator.mod _operator.mul _operator.ne _operator.neg _operator.not_ _operator.or_ _operator.pow
_operator.sub _operator.truediv math.ceil math.floor math.trunc torch.sym_float torch.sym_int torch.sym_max
torch.sym_min torch.sym_not torch.sym_ite torch.sym_sum
"""
# Each function of aten also has a variant that writes its first argument, with an underscore.
OPERATORS = frozenset(
    {f"aten.{name}" for name in _ATEN.split()}
    | {f"aten.{name}_" for name in _ATEN.split() if not name.startswith("_")}
    | {f"prims.{name}" for name in ("broadcast_in_dim", "convert_element_type", "iota", "view_of", "sum", "var")}
    | set(_SYMBOLS.split())
)
