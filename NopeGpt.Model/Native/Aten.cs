using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Native;

/// <summary>Operators of libtorch that TorchSharp does not bind. Autograd works through them. libtorch's own complaints arrive as an error
/// code without words, so the arguments are checked here first: every wrong one is an <see cref="ArgumentException"/>.</summary>
public static class Aten
{
    /// <summary>x / sqrt(mean(x², last dimension) + epsilon) * weight (Zhang and Sennrich 2019, "Root Mean Square Layer Normalization").</summary>
    /// <param name="input">[..., C], floating point.</param>
    /// <param name="weight">[C], of the input's type, or null for ones.</param>
    /// <param name="epsilon">Null: the machine epsilon of the input's type.</param>
    /// <returns>The shape and type of the input.</returns>
    public static Tensor RmsNorm(Tensor input, Tensor? weight = null, double? epsilon = null)
    {
        CheckFloating(input, nameof(input));
        if (input.dim() == 0) throw new ArgumentException("rms_norm needs at least one dimension.", nameof(input));
        long width = input.size(-1);
        if (weight is not null)
        {
            if (weight.dim() != 1 || weight.size(0) != width)
                throw new ArgumentException($"rms_norm over {width} channels cannot use a weight of shape {Shape(weight)}.", nameof(weight));
            CheckAlike(weight, input, nameof(weight));
        }
        if (epsilon is < 0 or double.NaN) throw new ArgumentException($"rms_norm cannot use epsilon {epsilon}: it must not be negative.", nameof(epsilon));

        Dispatcher call = default;
        call.Add(input);
        call.Add([width]);
        call.AddOptional(weight);
        call.AddOptional(epsilon);
        return call.CallForTensor("aten::rms_norm"u8, ""u8);
    }

    /// <summary>softmax(q kᵀ · scale + mask) v, by the fastest kernel that the device has for these arguments.</summary>
    /// <param name="query">[B, H, T, D], floating point.</param>
    /// <param name="key">[B, G, S, D]. G = H, or with `groupedQuery` a divisor of H: query head h reads key head h / (H / G).</param>
    /// <param name="value">[B, G, S, E].</param>
    /// <param name="mask">Broadcasts to [B, H, T, S]: bool (true takes part) or a float that is added. Not with `causal`.</param>
    /// <param name="dropout">Probability at which a weight is dropped, in [0, 1].</param>
    /// <param name="causal">Position t sees positions 0 to t. With S other than T the triangle starts at the upper left.</param>
    /// <param name="scale">Null: 1 / sqrt(D).</param>
    /// <param name="groupedQuery">Allows fewer key heads than query heads (Ainslie et al. 2023).</param>
    /// <returns>[B, H, T, E].</returns>
    public static Tensor Attention(
        Tensor query, Tensor key, Tensor value, Tensor? mask = null, double dropout = 0, bool causal = false, double? scale = null, bool groupedQuery = false)
    {
        CheckAttention(query, key, value, mask, dropout, causal, groupedQuery);
        Dispatcher call = default;
        call.Add(query);
        call.Add(key);
        call.Add(value);
        call.AddOptional(mask);
        call.Add(dropout);
        call.Add(causal);
        call.AddOptional(scale);
        call.Add(groupedQuery);
        return call.CallForTensor("aten::scaled_dot_product_attention"u8, ""u8);
    }

    /// <summary>The same memory as numbers of another type of the same size: the bits of float32, for example, as int32.</summary>
    internal static Tensor View(Tensor tensor, ScalarType type)
    {
        if (tensor.element_size() != type.ElementSize()) throw new ArgumentException($"{tensor.dtype} and {type} differ in size.", nameof(type));
        Dispatcher call = default;
        call.Add(tensor);
        call.Add((long)type);
        return call.CallForTensor("aten::view"u8, "dtype"u8);
    }

    /// <summary>Gives a tensor of one dimension another size. Where it outgrows its storage, that gets new memory, and all tensors of it with it.</summary>
    internal static void Resize(Tensor tensor, long size)
    {
        using IDisposable quiet = no_grad();
        Dispatcher call = default;
        call.Add(tensor);
        call.Add([size]);
        call.AddOptional((Tensor?)null); // memory_format
        call.CallForTensor("aten::resize_"u8, ""u8).Dispose();
    }

    /// <summary>Bytes of the storage that the tensor is a view of, and where it begins.</summary>
    internal static (nint Start, long Bytes) Storage(Tensor tensor) => Dispatcher.Storage(tensor);

    /// <summary>Multiplies each tensor in place by a scalar tensor (0 dimensions) of the same device, without waiting for the device.</summary>
    internal static void MultiplyEach(IReadOnlyList<Tensor> tensors, Tensor factor)
    {
        if (factor.dim() != 0) throw new ArgumentException($"The factor must have no dimensions, it has the shape {Shape(factor)}.", nameof(factor));
        if (tensors.Count == 0) return;
        using IDisposable quiet = no_grad();
        Dispatcher call = default;
        call.Add(tensors);
        call.Add(factor);
        call.Call("aten::_foreach_mul_"u8, "Tensor"u8);
    }

    /// <summary>Multiplies each tensor in place by the tensor of the same index, which has its shape or broadcasts to it.</summary>
    internal static void MultiplyEach(IReadOnlyList<Tensor> tensors, IReadOnlyList<Tensor> factors)
    {
        if (factors.Count != tensors.Count) throw new ArgumentException($"There are {factors.Count} factors for {tensors.Count} tensors.", nameof(factors));
        if (tensors.Count == 0) return;
        using IDisposable quiet = no_grad();
        Dispatcher call = default;
        call.Add(tensors);
        call.Add(factors);
        call.Call("aten::_foreach_mul_"u8, "List"u8);
    }

    /// <summary>One AdamW step (Loshchilov and Hutter 2019) over many tensors in one kernel, in place. All lists have one length, all tensors
    /// of one index one shape, all are of one type and on one device. The caller has counted the step.</summary>
    /// <param name="step">0 dimensions, float32: the number of this step, from 1.</param>
    internal static void FusedAdamW(
        IReadOnlyList<Tensor> parameters, IReadOnlyList<Tensor> gradients, IReadOnlyList<Tensor> firstMoments, IReadOnlyList<Tensor> secondMoments,
        Tensor step, double learningRate, double beta1, double beta2, double weightDecay, double epsilon)
    {
        if (gradients.Count != parameters.Count || firstMoments.Count != parameters.Count || secondMoments.Count != parameters.Count)
            throw new ArgumentException("The lists of a fused step must have one length.", nameof(gradients));
        if (parameters.Count == 0) return;
        using IDisposable quiet = no_grad();
        Dispatcher call = default;
        call.Add(parameters);
        call.Add(gradients);
        call.Add(firstMoments);
        call.Add(secondMoments);
        call.Add((IReadOnlyList<Tensor>)[]);
        call.AddRepeated(step, parameters.Count);
        call.Add(learningRate);
        call.Add(beta1);
        call.Add(beta2);
        call.Add(weightDecay);
        call.Add(epsilon);
        call.Add(false); // amsgrad
        call.Add(false); // maximize
        call.AddOptional((Tensor?)null); // grad_scale
        call.AddOptional((Tensor?)null); // found_inf
        call.Call("aten::_fused_adamw_"u8, ""u8);
    }

    private static void CheckAttention(Tensor query, Tensor key, Tensor value, Tensor? mask, double dropout, bool causal, bool groupedQuery)
    {
        CheckFloating(query, nameof(query));
        CheckAlike(key, query, nameof(key));
        CheckAlike(value, query, nameof(value));
        foreach ((Tensor tensor, string name) in (ReadOnlySpan<(Tensor, string)>)[(query, nameof(query)), (key, nameof(key)), (value, nameof(value))])
        {
            if (tensor.dim() != 4) throw new ArgumentException($"attention needs four dimensions [batch, heads, positions, channels], {name} has the shape {Shape(tensor)}.", name);
        }
        string shapes = $"query {Shape(query)}, key {Shape(key)}, value {Shape(value)}";
        if (key.size(0) != query.size(0) || value.size(0) != query.size(0)) throw new ArgumentException($"attention needs one batch size: {shapes}.", nameof(key));
        if (key.size(3) != query.size(3)) throw new ArgumentException($"attention needs as many channels in the key as in the query: {shapes}.", nameof(key));
        if (value.size(1) != key.size(1) || value.size(2) != key.size(2)) throw new ArgumentException($"attention needs as many heads and positions in the value as in the key: {shapes}.", nameof(value));
        bool headsFit = groupedQuery ? key.size(1) > 0 && query.size(1) % key.size(1) == 0 : key.size(1) == query.size(1);
        if (!headsFit) throw new ArgumentException($"attention needs {(groupedQuery ? "query heads that are a multiple of the key heads" : "as many key heads as query heads")}: {shapes}.", nameof(key));
        if (dropout is not (>= 0 and <= 1)) throw new ArgumentException($"attention cannot drop with probability {dropout}: it must be within 0 and 1.", nameof(dropout));
        if (mask is not null) CheckMask(query, key, mask, causal);
    }

    private static void CheckMask(Tensor query, Tensor key, Tensor mask, bool causal)
    {
        if (causal) throw new ArgumentException("attention takes a mask or `causal`, not both.", nameof(mask));
        if (mask.dtype != ScalarType.Bool && mask.dtype != query.dtype)
            throw new ArgumentException($"attention needs a mask of type Bool or {query.dtype}, it has {mask.dtype}.", nameof(mask));
        if (mask.device.type != query.device.type || mask.device.index != query.device.index)
            throw new ArgumentException($"attention needs one device: mask on {mask.device}, query on {query.device}.", nameof(mask));
        long[] full = [query.size(0), query.size(1), query.size(2), key.size(2)], shape = mask.shape;
        bool broadcasts = shape.Length is >= 2 and <= 4;
        for (int i = 1; broadcasts && i <= shape.Length; i++) broadcasts = shape[^i] == 1 || shape[^i] == full[^i];
        if (!broadcasts) throw new ArgumentException($"attention cannot use a mask of shape {Shape(mask)} for weights of shape [{string.Join(", ", full)}].", nameof(mask));
    }

    private static void CheckFloating(Tensor tensor, string name)
    {
        if (!tensor.is_floating_point()) throw new ArgumentException($"{name} must be floating point, it is {tensor.dtype}.", name);
    }

    private static void CheckAlike(Tensor tensor, Tensor like, string name)
    {
        if (tensor.dtype != like.dtype) throw new ArgumentException($"{name} must be of type {like.dtype}, it is {tensor.dtype}.", name);
        if (tensor.device.type != like.device.type || tensor.device.index != like.device.index)
            throw new ArgumentException($"{name} must be on {like.device}, it is on {tensor.device}.", name);
    }

    private static string Shape(Tensor tensor) => $"[{string.Join(", ", tensor.shape)}]";
}
