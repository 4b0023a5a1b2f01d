using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>The rotations of rotary positions (Su et al. 2021), exp(i · position · theta^(-2i/D)), kept on the model's device. The table grows
/// by doubling. Angles are products in float32, as in lilLM and llama2.c, so that far positions agree with theirs.</summary>
internal sealed class RotaryTable(int headDimensions, double theta, Device device) : IDisposable
{
    private const long FirstLength = 256;
    private Tensor? _table_SE;

    /// <param name="positions_PT">Places, int64.</param>
    /// <param name="end">Above every place.</param>
    /// <returns>Rotations, complex64: [P, T, D / 2].</returns>
    public Tensor At(Tensor positions_PT, long end)
    {
        if (_table_SE is null || _table_SE.shape[0] < end) Grow(end);
        return _table_SE!.index_select(0, positions_PT.flatten()).view(positions_PT.shape[0], positions_PT.shape[1], -1);
    }

    public void Dispose() => _table_SE?.Dispose();

    private void Grow(long end)
    {
        long length = _table_SE?.shape[0] ?? FirstLength;
        while (length < end) length *= 2;
        using DisposeScope scope = NewDisposeScope();
        using IDisposable constant = no_grad();
        Tensor frequencies_E = tensor((float)theta)
            .pow(arange(Scalars.Zero, Scalars.Of(headDimensions), Scalars.Of(2), ScalarType.Float32).div(Scalars.Of(headDimensions))).reciprocal();
        Tensor angles_SE = outer(Scalars.Range(length, ScalarType.Float32), frequencies_E);
        Tensor table_SE = polar(ones_like(angles_SE), angles_SE).to(device);
        _table_SE?.Dispose();
        _table_SE = table_SE.DetachFromDisposeScope();
    }
}
