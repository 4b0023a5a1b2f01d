using System.Runtime.InteropServices;
using System.Text;
using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Tests.Pages;

/// <summary>A small data set of the store, as a prepare run leaves it.</summary>
internal static class Dataset
{
    public static void Make(Store store, string name, int documents)
    {
        string[] texts = [.. Enumerable.Range(0, documents).Select(i => $"The {i}th fox met the {i * 7 % 13}th hen beside the old well, and they talked about the weather until the moon rose.")];
        Tokenizer tokenizer = BytePairTrainer.Train(texts, 300);
        Directory.CreateDirectory(store.DatasetFolder(name));
        tokenizer.Save(store.DatasetFolder(name));
        using TokenFileWriter writer = new(store.DatasetTokens(name), tokenizer.VocabularySize, tokenizer.Hash);
        foreach (string text in texts) writer.Append(CollectionsMarshal.AsSpan((List<int>)[.. tokenizer.Encode(text), tokenizer.EndOfTextId]), Encoding.UTF8.GetByteCount(text));
        writer.Complete();
    }
}
