using NopeGpt.Model.Fused;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model;

// Shapes: N tokens, d width of the residual stream, V vocabulary with the adapters, U vocabulary of the base, P a vocabulary and its padding.

/// <summary>The rows of an embedding or head as the attached adapters make them. A table of an adapter's own takes the base's place in proportion to
/// its strength s: E = E_base + Σ s·(E_own - E_base). Rows beyond the base's vocabulary are the mean of those tables that have them, weighted by strength.</summary>
internal sealed class TokenTable
{
    private readonly IReadOnlyList<Part> _parts;
    private readonly int _baseSize;

    /// <param name="base_Pd">The base's table.</param>
    /// <param name="baseSize">U: rows of it that are tokens.</param>
    /// <param name="own">The tables of attached adapters, the tokens in each, and the strengths, none of them 0.</param>
    public TokenTable(Tensor base_Pd, int baseSize, IReadOnlyList<(Tensor Own_Pd, int Size, double Strength)> own)
    {
        _baseSize = baseSize;
        Size = own.Count == 0 ? baseSize : Math.Max(baseSize, own.Max(o => o.Size));
        double grown = own.Where(o => o.Size > baseSize).Sum(o => o.Strength), left = 1 - own.Sum(o => o.Strength);
        List<Part> parts = left == 0 ? [] : [new(base_Pd, baseSize, left, 0)];
        parts.AddRange(own.Select(o => new Part(o.Own_Pd, o.Size, o.Strength, o.Size > baseSize ? o.Strength / grown : 0)));
        _parts = parts;
    }

    /// <summary>V.</summary>
    public int Size { get; }

    /// <summary>The one table that is used as it is, or null.</summary>
    private Tensor? Whole_Pd => _parts is [{ Share: 1 } only] ? only.Table_Pd : null;

    /// <summary>The rows of ids, [N, d].</summary>
    public Tensor Rows(Tensor ids_N)
    {
        if (Whole_Pd is { } whole_Pd) return whole_Pd.requires_grad && FusedOperators.Fit(whole_Pd, whole_Pd) ? EmbeddingPass.Apply(whole_Pd, ids_N) : whole_Pd.index_select(0, ids_N);
        return Sum(_parts.Select(part =>
        {
            Tensor rows_Nd = part.Table_Pd.index_select(0, part.Size < Size ? ids_N.clamp(max: Scalars.Of(part.Size - 1)) : ids_N);
            if (Size == _baseSize) return rows_Nd.mul(Scalars.Of(part.Share));
            Tensor known_N = ids_N.lt(Scalars.Of(_baseSize)), share_N = full_like(ids_N, Scalars.Of(part.GrownShare), rows_Nd.dtype).masked_fill_(known_N, Scalars.Of(part.Share));
            return rows_Nd.mul(share_N.unsqueeze(1));
        }));
    }

    /// <summary>The product of each token with every row, [..., V], without making the rows: for few tokens.</summary>
    public Tensor Project(Tensor x)
    {
        if (Whole_Pd is { } whole_Pd) return ThinProduct.Linear(x, whole_Pd.narrow(0, 0, Size));
        Tensor known = Sum(_parts.Select(part => ThinProduct.Linear(x, part.Table_Pd.narrow(0, 0, _baseSize)).mul(Scalars.Of(part.Share))));
        if (Size == _baseSize) return known;
        return cat([known, Sum(Grown.Select(part => ThinProduct.Linear(x, part.Table_Pd.narrow(0, _baseSize, Size - _baseSize)).mul(Scalars.Of(part.GrownShare))))], -1);
    }

    /// <summary>The rows of all tokens, and padding where a table is used as it is: [V or more, d].</summary>
    public Tensor Weight()
    {
        if (Whole_Pd is { } whole_Pd) return whole_Pd;
        Tensor known_Ud = Sum(_parts.Select(part => part.Table_Pd.narrow(0, 0, _baseSize).mul(Scalars.Of(part.Share))));
        return Size == _baseSize ? known_Ud
            : cat([known_Ud, Sum(Grown.Select(part => part.Table_Pd.narrow(0, _baseSize, Size - _baseSize).mul(Scalars.Of(part.GrownShare))))]);
    }

    /// <summary>A table with rows drawn for the ids from `from` on: N(0, 1/d), as the reference draws them. Padding is 0: it is never used.</summary>
    /// <param name="old_Pd">Its first `from` rows are kept.</param>
    /// <param name="config">With the new vocabulary.</param>
    public static Tensor Grow(Tensor old_Pd, int from, ModelConfig config, Generator generator)
    {
        using IDisposable quiet = no_grad();
        Tensor new_Pd = zeros(config.PaddedVocabularySize, config.EmbeddingDimensions, device: old_Pd.device);
        using (NewDisposeScope())
        {
            new_Pd.narrow(0, 0, from).copy_(old_Pd.narrow(0, 0, from));
            if (config.VocabularySize > from)
                new_Pd.narrow(0, from, config.VocabularySize - from)
                    .copy_(empty(config.VocabularySize - from, config.EmbeddingDimensions).normal_(0, 1 / Math.Sqrt(config.EmbeddingDimensions), generator));
        }
        return new_Pd;
    }

    private IEnumerable<Part> Grown => _parts.Where(p => p.GrownShare != 0);

    private static Tensor Sum(IEnumerable<Tensor> parts) => parts.Aggregate((total, part) => total.add(part, Scalars.One));

    /// <param name="Size">Rows that are tokens.</param>
    /// <param name="Share">Its part in the rows that the base has.</param>
    /// <param name="GrownShare">Its part in the rows beyond them.</param>
    private readonly record struct Part(Tensor Table_Pd, int Size, double Share, double GrownShare);
}
