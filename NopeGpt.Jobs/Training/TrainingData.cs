using System.Globalization;
using NopeGpt.Data;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Training;

/// <summary>The token files that a config names, opened, and the tokenizer that made them.</summary>
internal sealed class TrainingData : IDisposable
{
    /// <summary>Files of up to so many tokens are read through before they are trained on: some seconds. Ids of greater ones are checked as they come.</summary>
    internal const long VerifiedTokens = 2_000_000_000;

    private readonly List<MixedFile> _files = [];

    /// <exception cref="FileNotFoundException">A token file or tokenizer is missing.</exception>
    /// <exception cref="InvalidDataException">One is damaged, or they do not belong together.</exception>
    /// <exception cref="UserException">A mixture's entry is not of the form NAME=WEIGHT.</exception>
    public TrainingData(DataConfig config, Store store)
    {
        try
        {
            foreach ((string name, double weight) in Names(config)) _files.Add(new MixedFile(Open(name, config.RawTokens, store), weight));
            string beside = Store.TokenizerBeside(_files[0].File.Path);
            Tokenizer = Tokenizer.Load(beside, store.TokenizerPlaces, store.TokenizerDownload);
            Tokenizer = First.CheckTokenizer(Tokenizer, beside);
            foreach (MixedFile file in _files) file.File.CheckTokenizer(Tokenizer, beside);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>In the config's order, data.dataset first.</summary>
    public IReadOnlyList<MixedFile> Files => _files;

    public Tokenizer Tokenizer { get; }

    public TokenFile First => _files[0].File;

    public long Tokens => _files.Sum(f => f.File.Count);

    /// <summary>The data sets and weights that a config names.</summary>
    /// <exception cref="UserException">A mixture's entry is not of the form NAME=WEIGHT.</exception>
    public static IEnumerable<(string Name, double Weight)> Names(DataConfig config) => config.Mixture.Select(Entry).Prepend((config.Dataset, 1));

    /// <summary>Opens one data set's tokens.</summary>
    public static TokenFile Open(string nameOrPath, bool raw, Store store)
    {
        string path = store.ResolveTokenFile(nameOrPath);
        if (!raw || path == (Store.IsName(nameOrPath) ? store.DatasetTokens(nameOrPath) : null)) return TokenFile.Open(path);
        Tokenizer tokenizer = Tokenizer.Load(Store.TokenizerBeside(path), store.TokenizerPlaces, store.TokenizerDownload);
        try { return TokenFile.OpenRaw(path, tokenizer.VocabularySize, tokenizer.Hash); }
        catch (ArgumentException e) { throw new InvalidDataException($"The raw token file {path} cannot be used: {e.Message}", e); }
    }

    /// <summary>Reads files of usual sizes through.</summary>
    /// <exception cref="InvalidDataException">One is damaged.</exception>
    public void Verify()
    {
        foreach (MixedFile file in _files.Where(f => f.File.Count <= VerifiedTokens)) file.File.Verify();
    }

    /// <exception cref="ArgumentException">The sizes do not fit the files; the message says why.</exception>
    public BatchSource Source(DataConfig config, int batchSize, ulong seed) => new(_files, new BatchOptions
    {
        BatchSize = batchSize, TokensPerSample = config.TokensPerSample, Seed = seed, HoldoutSamples = config.NumEvalSamples, Packed = config.Packed, PaddingId = Tokenizer.EndOfTextId,
    });

    public void Dispose()
    {
        foreach (MixedFile file in _files) file.File.Dispose();
    }

    private static (string Name, double Weight) Entry(string text)
    {
        int equals = text.LastIndexOf('=');
        if (equals > 0 && double.TryParse(text.AsSpan(equals + 1), NumberStyles.Float, CultureInfo.InvariantCulture, out double weight) && double.IsFinite(weight) && weight > 0)
            return (text[..equals].Trim(), weight);
        throw new UserException($"data.mixture = {text}: write it as NAME=WEIGHT with a weight above 0, such as stories=0.5");
    }
}
