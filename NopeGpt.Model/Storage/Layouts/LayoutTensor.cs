using static TorchSharp.torch;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>One tensor of a file and the parameters that it holds: the mapping between them, in both directions.</summary>
/// <param name="Name">Its name in the file, without the prefixes that some programs add.</param>
/// <param name="Parameters">The parameters that lie in it one behind the other, along their first dimension.</param>
/// <param name="Transposed">It lies as [in, out] (the Conv1D of GPT-2), ours as [out, in].</param>
/// <param name="RotaryHeads">Where not 0: its rows are those of so many heads, and the two channels of a rotary pair lie half a head apart.
/// Ours lie side by side.</param>
internal sealed record LayoutTensor(string Name, IReadOnlyList<string> Parameters, bool Transposed = false, int RotaryHeads = 0)
{
    public LayoutTensor(string name, string parameter, bool transposed = false, int rotaryHeads = 0)
        : this(name, [parameter], transposed, rotaryHeads)
    {
    }

    /// <summary>The file holds the parameter exactly as it is.</summary>
    public bool IsPlain => Parameters.Count == 1 && !Transposed && RotaryHeads == 0;

    /// <summary>The shape in the file.</summary>
    /// <param name="shapes">The shape of every parameter.</param>
    public long[] Shape(IReadOnlyDictionary<string, long[]> shapes)
    {
        long[] first = shapes[Parameters[0]];
        long[] joined = [Parameters.Sum(p => shapes[p][0]), .. first[1..]];
        return Transposed ? [.. joined.Reverse()] : joined;
    }

    /// <summary>Copies the file's tensor into the parameters; types are converted.</summary>
    public void CopyInto(Tensor stored, IReadOnlyDictionary<string, Tensor> parameters)
    {
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        // TensorFlow's convolutions over one place have a first dimension of 1.
        Tensor joined = stored.dim() == 3 ? stored.squeeze(0) : stored;
        if (Transposed) joined = joined.T;
        long done = 0;
        foreach (Tensor parameter in Parameters.Select(p => parameters[p]))
        {
            Tensor part = joined.narrow(0, done, parameter.shape[0]);
            parameter.copy_(RotaryHeads == 0 ? part : Exchange(part, RotaryHeads, 2, parameter.shape[0] / RotaryHeads / 2));
            done += parameter.shape[0];
        }
    }

    /// <summary>The file's tensor of the parameters, or of anything of their shapes, such as their gradients.</summary>
    public Tensor Join(IReadOnlyDictionary<string, Tensor> parameters)
    {
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        Tensor[] parts = [.. Parameters.Select(p => parameters[p].detach())];
        if (RotaryHeads > 0) parts = [.. parts.Select(p => Exchange(p, RotaryHeads, p.shape[0] / RotaryHeads / 2, 2))];
        Tensor joined = parts.Length == 1 ? parts[0] : cat(parts);
        return (Transposed ? joined.T : joined).MoveToOuterDisposeScope();
    }

    // Each head's rows as a table of outer x inner are read by columns in place of by rows.
    private static Tensor Exchange(Tensor rows, long heads, long outer, long inner) =>
        rows.reshape([heads, outer, inner, .. rows.shape[1..]]).transpose(1, 2).reshape(rows.shape);
}
