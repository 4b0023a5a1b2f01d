using System.Runtime.InteropServices;
using System.Text;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Web.Tests.Pages;

/// <summary>A small data set of the store, as a prepare run leaves it.</summary>
internal static class Dataset
{
    /// <summary>The tokens and the tokenizer only.</summary>
    public static void Make(Store store, string name, int documents) =>
        MakeTokens(store, name, [.. Enumerable.Range(0, documents).Select(i => $"The {i}th fox met the {i * 7 % 13}th hen beside the old well, and they talked about the weather until the moon rose.")]);

    /// <summary>All of a data set of plain text.</summary>
    /// <param name="reading">What was wrong in its source.</param>
    public static void MakeText(Store store, string name, string[] texts, ReadingReport? reading = null, bool statistics = true)
    {
        Tokenizer tokenizer = MakeTokens(store, name, texts);
        using TokenFile file = TokenFile.Open(store.DatasetTokens(name));
        new DatasetInfo(new PrepareConfig { Dataset = name, Source = "/texts/of-mine.jsonl.gz", VocabularySize = 300 }, 1337, "", file.DocumentCount, file.TextBytes, file.Count, tokenizer.VocabularySize, tokenizer.Hash, null, reading ?? new ReadingReport { Records = texts.Length })
        {
            Columns = "text=text", Statistics = statistics ? TokenStatistics.Of(file) : null,
        }.Write(store.DatasetFolder(name));
    }

    /// <summary>All of a data set of conversations, or of pairs.</summary>
    /// <param name="records">Lines of jsonl.</param>
    public static void MakeChat(Store store, string name, string[] records, bool pairs = false)
    {
        string source = Path.Combine(store.CacheFolder, $"{name}.jsonl");
        File.WriteAllLines(source, records);
        Directory.CreateDirectory(store.DatasetFolder(name));
        Tokenizer tokenizer = BytePairTrainer.Train(["the user asks and the assistant answers", .. records], 400).WithChatMarkers();
        tokenizer.Save(store.DatasetFolder(name));
        PreparedChat made = new ChatPreparation(ChatFormat.For(tokenizer), new ConversationReader(), pairs).Run(store.DatasetTokens(name), Source.Open(source));
        using ChatFile file = ChatFile.Open(store.DatasetTokens(name));
        new DatasetInfo(new PrepareConfig { Dataset = name, Source = "hub:someone/talks" }, 1337, "", file.Count, file.Tokens.TextBytes, file.Tokens.Count, tokenizer.VocabularySize, tokenizer.Hash, null, made.Reading)
        {
            Kind = pairs ? DatasetKind.Preference : DatasetKind.Chat, Columns = "messages=messages", Origin = "hub:someone/talks@0123456789abcdef0123456789abcdef01234567", Licence = "apache-2.0", Chat = made.Statistics,
            Statistics = TokenStatistics.Of(file.Tokens),
        }.Write(store.DatasetFolder(name));
    }

    private static Tokenizer MakeTokens(Store store, string name, string[] texts)
    {
        Tokenizer tokenizer = BytePairTrainer.Train(texts, 300);
        Directory.CreateDirectory(store.DatasetFolder(name));
        tokenizer.Save(store.DatasetFolder(name));
        using TokenFileWriter writer = new(store.DatasetTokens(name), tokenizer.VocabularySize, tokenizer.Hash);
        foreach (string text in texts) writer.Append(CollectionsMarshal.AsSpan((List<int>)[.. tokenizer.Encode(text), tokenizer.EndOfTextId]), Encoding.UTF8.GetByteCount(text));
        writer.Complete();
        return tokenizer;
    }
}
