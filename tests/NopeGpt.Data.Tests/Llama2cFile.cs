using System.Text;

namespace NopeGpt.Data.Tests;

/// <summary>llama2.c's tokenizer.bin, written and read, and its algorithm in the plainest way, to check ours against.</summary>
internal sealed class Llama2cFile(IReadOnlyList<(string Text, float Score)> tokens)
{
    private readonly Dictionary<string, int> _ids = tokens.Select((token, id) => (token.Text, id)).ToDictionary(token => token.Text, token => token.id);

    /// <summary>The special tokens and the bytes, which every such file begins with.</summary>
    public static IEnumerable<(string Text, float Score)> Head => [("<unk>", 0), ("\n<s>\n", 0), ("\n</s>\n", 0), .. Enumerable.Range(0, 256).Select(value => ($"<0x{value:X2}>", 0f))];

    public static Llama2cFile Read(string path)
    {
        using BinaryReader reader = new(File.OpenRead(path));
        reader.ReadInt32();
        List<(string, float)> tokens = [];
        while (reader.BaseStream.Position < reader.BaseStream.Length)
        {
            float score = reader.ReadSingle();
            tokens.Add((Encoding.UTF8.GetString(reader.ReadBytes(reader.ReadInt32())), score));
        }
        return new(tokens);
    }

    public int Count => tokens.Count;

    public byte[] Bytes()
    {
        using MemoryStream stream = new();
        using BinaryWriter writer = new(stream);
        byte[][] texts = [.. tokens.Select(token => Encoding.UTF8.GetBytes(token.Text))];
        writer.Write(texts.Max(text => text.Length));
        for (int id = 0; id < texts.Length; id++)
        {
            writer.Write(tokens[id].Score);
            writer.Write(texts[id].Length);
            writer.Write(texts[id]);
        }
        return stream.ToArray();
    }

    /// <summary>As `encode` of run.c, without BOS: a space first, characters or their bytes, then the best pair again and again.</summary>
    public List<int> Encode(string text)
    {
        if (text.Length == 0) return [];
        List<int> ids = [];
        foreach (Rune rune in (" " + text).EnumerateRunes())
        {
            if (_ids.TryGetValue(rune.ToString(), out int id)) ids.Add(id);
            else ids.AddRange(Encoding.UTF8.GetBytes(rune.ToString()).Select(value => value + 3));
        }
        while (true)
        {
            (float Score, int Id, int At) best = (-1e10f, -1, -1);
            for (int i = 0; i + 1 < ids.Count; i++)
                if (_ids.TryGetValue(tokens[ids[i]].Text + tokens[ids[i + 1]].Text, out int id) && tokens[id].Score > best.Score) best = (tokens[id].Score, id, i);
            if (best.Id < 0) return ids;
            ids[best.At] = best.Id;
            ids.RemoveAt(best.At + 1);
        }
    }
}
