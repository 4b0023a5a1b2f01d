using System.Buffers.Binary;
using System.Text;

namespace NopeGpt.Model.Tests;

/// <summary>Safetensors made by hand.</summary>
internal static class SafetensorsBytes
{
    public static byte[] File(string header, byte[] data)
    {
        byte[] json = Encoding.UTF8.GetBytes(header), length = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(length, json.Length);
        return [.. length, .. json, .. data];
    }
}
