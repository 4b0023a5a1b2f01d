using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Tests.Inference;

/// <summary>A small byte-pair tokenizer, trained once for all tests.</summary>
internal static class TinyTokenizer
{
    private static readonly Lazy<Tokenizer> Trained = new(() => BytePairTrainer.Train(
        ["Once upon a time there was a dog.", "The dog ran to the old tree and back again.", "Once there was a tree upon a hill."], vocabularySize: 290));

    /// <returns>The path of the tokenizer.json that was written into the folder.</returns>
    public static string Write(string folder)
    {
        Trained.Value.Save(folder);
        return Path.Combine(folder, "tokenizer.json");
    }
}
