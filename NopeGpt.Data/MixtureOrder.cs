namespace NopeGpt.Data;

/// <summary>Which source each sample of a mixture comes from. Weights become whole quotas of a period; in every period each source has exactly its quota,
/// in an order that a keyed bijection gives. So the shares are exact, the n-th sample of a source is known without counting, and nothing is kept.</summary>
internal sealed class MixtureOrder
{
    private const int LongestExact = 1000;
    private const double FinestShare = 1 << 16, Tolerance = 1e-9;

    // _ends[i] is the sum of the quotas of the sources 0 to i.
    private readonly long[] _ends;
    private readonly ulong _key;

    public MixtureOrder(IReadOnlyList<double> weights, ulong key)
    {
        _key = key;
        _ends = Quotas(weights);
        for (int i = 1; i < _ends.Length; i++) _ends[i] += _ends[i - 1];
    }

    public long Period => _ends[^1];

    /// <summary>The share of a source, from 0 to 1.</summary>
    public double Share(int source) => (double)(_ends[source] - First(source)) / Period;

    /// <summary>The source of a sample, and which of that source's samples it is, from 0.</summary>
    public (int Source, long Index) this[long sample]
    {
        get
        {
            if (_ends.Length == 1) return (0, sample);
            long period = sample / Period, place = new Permutation(Period, Mixing.Mix(_key, (ulong)period))[sample % Period];
            int source = 0;
            while (_ends[source] <= place) source++;
            return (source, (period * (_ends[source] - First(source))) + place - First(source));
        }
    }

    /// <summary>A number divided among the sources by their quotas, exactly: each has its part rounded down, those with the greatest rest one more.</summary>
    public int[] Divide(int number)
    {
        int[] parts = [.. Enumerable.Range(0, _ends.Length).Select(i => (int)((_ends[i] - First(i)) * number / Period))];
        int left = number - parts.Sum();
        foreach (int source in Enumerable.Range(0, parts.Length).OrderByDescending(i => (_ends[i] - First(i)) * number % Period).Take(left)) parts[source]++;
        return parts;
    }

    private long First(int source) => source == 0 ? 0 : _ends[source - 1];

    /// <summary>The smallest whole numbers in the proportion of the weights where there are such with a sum of at most 1,000, else 65,536ths.</summary>
    private static long[] Quotas(IReadOnlyList<double> weights)
    {
        double total = weights.Sum();
        for (int period = 1; period <= LongestExact; period++)
        {
            if (weights.All(w => Math.Round(w / total * period) >= 1 && Math.Abs((w / total * period) - Math.Round(w / total * period)) < Tolerance * period))
                return [.. weights.Select(w => (long)Math.Round(w / total * period))];
        }
        return [.. weights.Select(w => Math.Max(1, (long)Math.Round(w / total * FinestShare)))];
    }
}
