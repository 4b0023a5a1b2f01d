using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Tokens;

/// <summary>Text of a data set of the store, as its token file has it: documents spread evenly over it.</summary>
internal static class DatasetSample
{
    private const int MostDocuments = 200, MostTokens = 300_000;

    /// <summary>The documents without special tokens. A tokenizer that changes text has changed it here already.</summary>
    /// <exception cref="InvalidDataException">The data set is damaged.</exception>
    /// <exception cref="IOException">It is gone, or cannot be read.</exception>
    public static IReadOnlyList<string> Read(Store store, string dataset, CancellationToken cancel)
    {
        ArgumentNullException.ThrowIfNull(store);
        Tokenizer tokenizer = Tokenizer.Load(store.DatasetFolder(dataset), store.TokenizerPlaces);
        using TokenFile file = TokenFile.Open(store.DatasetTokens(dataset));
        if (file.VocabularySize > tokenizer.VocabularySize) tokenizer = tokenizer.WithChatMarkers();
        file.CheckTokenizer(tokenizer, store.DatasetFolder(dataset));
        HashSet<int> specials = [.. tokenizer.SpecialTokens.Values];
        List<string> documents = [];
        long count = Math.Min(MostDocuments, file.DocumentCount);
        int tokens = 0;
        for (long i = 0; i < count && tokens < MostTokens; i++)
        {
            cancel.ThrowIfCancellationRequested();
            (long start, int length) = file.Document((long)((double)i * file.DocumentCount / count));
            int[] ids = new int[Math.Min(length, MostTokens - tokens)];
            file.Read(start, ids);
            tokens += ids.Length;
            string text = tokenizer.Decode(ids.Where(id => !specials.Contains(id)));
            // A cut may go through a character.
            if (ids.Length < length) text = text.TrimEnd('\uFFFD');
            if (text.Length > 0) documents.Add(text);
        }
        return documents;
    }
}
